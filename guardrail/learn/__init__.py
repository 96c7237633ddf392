"""Learning: calibrated linear heads from labelled texts."""
