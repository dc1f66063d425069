"""Hosting experts: who hosts what, and serving them to callers near and far."""
