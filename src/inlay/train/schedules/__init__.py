"""One file a kind; `inlay.train.schedule.schedules` finds them."""
