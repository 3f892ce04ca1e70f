"""Pure functions on arrays that training, codec and evaluation share: errors, statistics, pictures."""
