"""Effects from the moments of δ, with a bound on the error of every pair."""
