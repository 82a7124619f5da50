"""Measurements that explain a choice; nothing of the product depends on them."""
