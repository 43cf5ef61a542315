"""Contracts of the component kinds as pytest base classes, for everybody who writes a component."""
