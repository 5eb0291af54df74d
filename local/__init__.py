"""The local stack: the real template on an emulator, and an upstream simulator that can be made to fail."""
