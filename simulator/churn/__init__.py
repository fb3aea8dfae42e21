"""Churn: devices that leave, come back, join, get hot or busy, and what a reply in progress makes of it."""
