"""How the warehouse loads, answers and grows."""
