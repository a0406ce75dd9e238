"""stub"""
from cpuconv.plan import Rejection
class Im2col:
    name = "im2col"
    version = 1
    plain = True
    def supports(self, problem, cpu):
        return Rejection("not yet")
