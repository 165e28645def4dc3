"""`make demo`: a sample catalog, a release trained on it, and products through Kafka."""
