"""Many runs over one WebSocket."""
