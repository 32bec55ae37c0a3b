"""Mean test loss, in nats."""

from leadline.parts.metrics import FinalMetric, register

register(FinalMetric("test_loss", "test loss", " nats", "nats", record=("final-test", "loss"), position=(11, "")))
