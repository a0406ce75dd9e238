"""The algorithms. A new one is a module here and an entry in this tuple."""

from cpuconv.algorithms.depthwise import Depthwise
from cpuconv.algorithms.direct import Direct
from cpuconv.algorithms.few_channels import FewChannels
from cpuconv.algorithms.grouped_lanes import GroupedLanes
from cpuconv.algorithms.im2col import Im2col
from cpuconv.algorithms.implicit_gemm import ImplicitGemm, UnpackedGemm
from cpuconv.algorithms.int8_depthwise import Int8Depthwise
from cpuconv.algorithms.int8_gemm import Int8Gemm
from cpuconv.algorithms.reference import Reference
from cpuconv.algorithms.weight_depthwise import WeightDepthwise
from cpuconv.algorithms.weight_gemm import WeightGemm
from cpuconv.algorithms.winograd import WINOGRADS
from cpuconv.plan import Algorithm

ALGORITHMS: tuple[Algorithm, ...] = (
    ImplicitGemm(), UnpackedGemm(), *WINOGRADS, Depthwise(), FewChannels(), GroupedLanes(), Im2col(), Direct(),
    Int8Gemm(), Int8Depthwise(), WeightGemm(), WeightDepthwise(), Reference(),
)  # fmt: skip
