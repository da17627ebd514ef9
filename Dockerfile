# A worker, a producer, a dashboard or a command line, as the command says. The first stage builds a virtual environment
# of pinned versions; the second takes nothing else over: no pip, no build backend, no cache.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/straggler
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml constraints.txt ./
# The dependencies, with the extras of what serves, are a layer of their own, which a change of code leaves alone.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = project['optional-dependencies']; \
        print(*project['dependencies'], *extras['dashboard'], *extras['metrics'], sep='\n')" > requirements.txt \
    && pip --python /opt/straggler/bin/python install -r requirements.txt \
    && pip install hatchling
COPY . .
# As in the Makefile the build is not isolated, so that the pins hold for its backend too.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/straggler/bin/python install --no-deps /wheels/*.whl

FROM python:3.13-slim
# tini is process 1: it buries what killed jobs leave behind (a plain function's own children are orphans once it is
# killed, and a zombie holds its place in the limit of processes), and ends a worker told to stop before it listens.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 straggler \
    && useradd --uid 10001 --gid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin straggler
COPY --from=build /opt/straggler /opt/straggler
# What runs is compiled now: at run time nothing need be written, and the file system may be read-only. pip has compiled
# what it installed; of the standard library, which the base image leaves uncompiled, an import compiles just what is
# needed (0.4 s less for each start, and a health check is one).
RUN /opt/straggler/bin/python -c "import arq.cli, dashboard.server, prometheus_client, straggler.commands.dashboard, \
        straggler.commands.worker, workers.library.http"
ENV PATH=/opt/straggler/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY examples examples
USER 10001:10001
ENTRYPOINT ["tini", "--"]
CMD ["straggler", "--help"]
