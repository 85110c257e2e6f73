"""The chain round a value: layers that interpret operators. They know no worker."""
