"""Papers that several methods cite."""

from tutelage.core.registry import Paper

ARANI = Paper(
    key="arani2021noise",
    title="Noise as a Resource for Learning in Knowledge Distillation",
    authors="Arani, Elahe and Sarfraz, Fahad and Zonooz, Bahram",
    venue="IEEE/CVF Winter Conference on Applications of Computer Vision",
    year=2021,
    arxiv="1910.05057",
)
ENDD = Paper(
    key="malinin2020ensemble",
    title="Ensemble Distribution Distillation",
    authors="Malinin, Andrey and Mlodozeniec, Bruno and Gales, Mark",
    venue="International Conference on Learning Representations",
    year=2020,
    arxiv="1905.00076",
)
FAST_KD = Paper(
    key="shen2022fast",
    title="A Fast Knowledge Distillation Framework for Visual Recognition",
    authors="Shen, Zhiqiang and Xing, Eric",
    venue="European Conference on Computer Vision",
    year=2022,
    arxiv="2112.01528",
)
HINTON = Paper(
    key="hinton2015distilling",
    title="Distilling the Knowledge in a Neural Network",
    authors="Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
    venue="arXiv preprint arXiv:1503.02531",
    year=2015,
    arxiv="1503.02531",
)
LABEL_SMOOTHING = Paper(
    key="szegedy2016rethinking",
    title="Rethinking the Inception Architecture for Computer Vision",
    authors="Szegedy, Christian and Vanhoucke, Vincent and Ioffe, Sergey and Shlens, Jon and Wojna, Zbigniew",
    venue="IEEE Conference on Computer Vision and Pattern Recognition",
    year=2016,
    arxiv="1512.00567",
)
LSKD = Paper(
    key="sun2024logit",
    title="Logit Standardization in Knowledge Distillation",
    authors="Sun, Shangquan and Ren, Wenqi and Li, Jingzhi and Wang, Rui and Cao, Xiaochun",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2024,
)
TF_KD = Paper(
    key="yuan2020revisiting",
    title="Revisiting Knowledge Distillation via Label Smoothing Regularization",
    authors="Yuan, Li and Tay, Francis EH and Li, Guilin and Wang, Tao and Feng, Jiashi",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2020,
    arxiv="1909.11723",
)
UNO = Paper(
    key="fini2021unified",
    title="A Unified Objective for Novel Class Discovery",
    authors="Fini, Enrico and Sangineto, Enver and Lathuili{\\`e}re, St{\\'e}phane and Zhong, Zhun and Nabi, Moin and "
    "Ricci, Elisa",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2021,
    arxiv="2108.08536",
)
