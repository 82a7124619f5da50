"""What a step sends and holds on many devices, on paper."""
