from .mixed_batch import mixed_kernel as mixed_kernel
from .remat_policy import Remat as Remat
from .token_scores import TokenScores as TokenScores
from .token_scores import score_in_blocks as score_in_blocks
from .token_scores import scores_of as scores_of
