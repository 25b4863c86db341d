"""Pictures of any size through dense models."""
