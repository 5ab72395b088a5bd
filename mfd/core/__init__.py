"""The protocol as a value machine: events in, effects out, time as an argument."""
