"""stub"""
from cpuconv.plan import Rejection
class Depthwise:
    name = "depthwise"
    version = 1
    plain = True
    def supports(self, problem, cpu):
        return Rejection("not yet")
