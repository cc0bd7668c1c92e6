"""What a report says, once, for all its forms: tables and sentences."""
