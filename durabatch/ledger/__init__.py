"""The only room that knows apsw and SQL: opening the file, its locks and transactions, and one module per table."""
