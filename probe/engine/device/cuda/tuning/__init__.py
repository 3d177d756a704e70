"""Which of the device's own tactics compute a layer, and how fast: planned without memory, measured on the device."""
