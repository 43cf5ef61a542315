"""A soft filter by recency and collaborative vectors by co-occurrence, as a plug-in for gensr."""
