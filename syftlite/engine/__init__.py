"""What an owner runs: store, executor, gate, sessions. Messages in, messages out; no sockets, no disk, no clock of its own."""
