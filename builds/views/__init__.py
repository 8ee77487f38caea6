"""The pages of templates and builds."""
