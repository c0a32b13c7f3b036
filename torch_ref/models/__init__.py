"""The model families. Every variant is also a function: `models.inline_deit_tiny(num_classes=10)`."""

from .backbone import create_backbone as create_backbone
from .factory import create_model as create_model
from .factory import list_models as list_models
from .factory import variant
from .inline_cswin import InLineCSwin
from .inline_deit import InLineDeiT
from .inline_pvt import InLinePVT
from .inline_swin import InLineSwin
from .soft import Soft

# One line per name of VARIANTS, so that editors and type checkers see them.
inline_deit_tiny = variant("inline_deit_tiny", InLineDeiT)
inline_deit_small = variant("inline_deit_small", InLineDeiT)
inline_deit_base = variant("inline_deit_base", InLineDeiT)
inline_deit_digits = variant("inline_deit_digits", InLineDeiT)

inline_pvt_tiny = variant("inline_pvt_tiny", InLinePVT)
inline_pvt_small = variant("inline_pvt_small", InLinePVT)
inline_pvt_medium = variant("inline_pvt_medium", InLinePVT)
inline_pvt_large = variant("inline_pvt_large", InLinePVT)

inline_swin_tiny = variant("inline_swin_tiny", InLineSwin)
inline_swin_small = variant("inline_swin_small", InLineSwin)
inline_swin_base = variant("inline_swin_base", InLineSwin)
inline_swin_base_384 = variant("inline_swin_base_384", InLineSwin)

inline_cswin_tiny = variant("inline_cswin_tiny", InLineCSwin)
inline_cswin_small = variant("inline_cswin_small", InLineCSwin)
inline_cswin_base = variant("inline_cswin_base", InLineCSwin)
inline_cswin_base_384 = variant("inline_cswin_base_384", InLineCSwin)

soft_tiny = variant("soft_tiny", Soft)
soft_small = variant("soft_small", Soft)
soft_medium = variant("soft_medium", Soft)
soft_large = variant("soft_large", Soft)
soft_huge = variant("soft_huge", Soft)
soft_norm_tiny = variant("soft_norm_tiny", Soft)
soft_norm_small = variant("soft_norm_small", Soft)
soft_norm_medium = variant("soft_norm_medium", Soft)
soft_norm_large = variant("soft_norm_large", Soft)
soft_norm_huge = variant("soft_norm_huge", Soft)
soft_digits = variant("soft_digits", Soft)
