"""The mesh's network. Importing anything from here imports libp2p and trio: seconds on a cold disk."""

import warnings

with warnings.catch_warnings():
    # libp2p imports `websockets.legacy`, which says that it is deprecated; nothing here uses it.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"websockets\.legacy")
    import libp2p as _  # noqa: F401
