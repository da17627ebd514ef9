"""Ready-made jobs. A name with a dot, like `http.fetch`, is looked for here: module `http`, function `fetch`."""
