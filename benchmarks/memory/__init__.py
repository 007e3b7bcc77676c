"""How much memory it takes, compared with what is predicted."""
