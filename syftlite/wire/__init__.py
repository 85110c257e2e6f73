"""The wire: messages, their bytes, and the state machine of a connection. No sockets, no tensors' values."""
