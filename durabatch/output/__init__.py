"""Results on their way out: documents, tables and files, written a batch at a time."""
