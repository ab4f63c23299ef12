"""What the cache of a data-pipeline service sees: parameters, habits, streams, and the workload they make."""
from .parameters import PipelineParameters
from .workload import Request, Workload, workload

__all__ = ["PipelineParameters", "Request", "Workload", "workload"]
