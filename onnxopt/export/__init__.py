"""torch → Model (extra ``[torch]``)."""
