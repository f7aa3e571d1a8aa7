"""What each command prints with ``--json``, as types: for docs/cli.md and the tests."""
