"""The diffusion-guided language model (DGLM): move a sentence embedding where the policy wants it, then write it out.

schedule, denoiser, sampler and guidance are four things in four places; `prompt` and `decoder` turn an embedding into
text; `pipeline` puts them together. After Lovelace, Kishore, Chen and Weinberger, "Diffusion Guided Language Modeling",
ACL Findings 2024.
"""
