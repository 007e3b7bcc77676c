"""Looking at the data of published runs again."""
