"""What the steps hand each other on disk; the only code that knows a file name."""
