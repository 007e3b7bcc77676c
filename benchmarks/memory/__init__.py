"""What memory it takes, beside what is said beforehand."""
