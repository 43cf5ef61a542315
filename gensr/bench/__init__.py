"""Speed, measured side by side: what is timed, against what, how, and how far from the device's own limits."""
