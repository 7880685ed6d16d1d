"""Networks as files that run without Tutelage, each checked on real samples before it is called done."""
