"""The pages under the roof: signing in, the overview, operations, events, the account."""
