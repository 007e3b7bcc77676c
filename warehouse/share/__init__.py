"""Moving runs between warehouses."""
