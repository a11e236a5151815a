"""What the end-to-end tests share: processes, a PostgreSQL of their own, the user service, clients and the audit."""
