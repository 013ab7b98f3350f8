"""The fault kit: breaks a mesh on purpose, and judges what its clients saw.

    processes   real nodes that are killed, frozen, thawed, restarted
    link        a bad network in front of a node
    frames      a provider that fails at a chosen frame (`provider_main` is its command)
    client      a streaming client that writes down everything, into a
    history     which
    checker     judges; `canary` searches logs for what must not be there

`pythonpath` in pyproject.toml makes it importable from every test as `faults`; the fixtures
`history`, `start_node` and `link_to` stand in tests/conftest.py.
"""
