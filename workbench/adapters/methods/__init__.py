"""One module a method, each with a ``METHOD``. A new module here is a new method: the registry finds it."""
