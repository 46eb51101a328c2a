"""Files that the steps hand each other; the only code that knows a file name."""
