"""The context model of the streams, in integers, and its fitting."""
