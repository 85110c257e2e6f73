"""Privacy policy: labels and how operators join them. Data and pure functions."""
