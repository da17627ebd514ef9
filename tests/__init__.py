"""The tests: unit (one module each), integration (a batch's whole way), chaos (what fails on the way)."""
