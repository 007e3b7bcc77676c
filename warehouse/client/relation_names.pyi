"""Every public relation, for type checkers and editors. Made by `stub.py` from the SQL files."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import SupportsIndex, TypeAlias, TypeVar

import polars as pl

from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.client.relation_method import Described
from rare_tokens.warehouse.schema.relations import Relation

_T = TypeVar("_T")
# One value, several of which any will do, or NULL.
_Of: TypeAlias = _T | Iterable[_T] | None

class UnknownRelationError(UserError, AttributeError): ...

def shown() -> list[str]: ...

class _activation_correlation(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        space: _Of[str] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        comparison: _Of[str] = ...,
        other_group: _Of[str] = ...,
        other_k: _Of[SupportsIndex] = ...,
        other_draw: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        pairs: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        mean_correlation: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _activation_patching(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        target: _Of[str] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        units: _Of[SupportsIndex] = ...,
        activation_change: _Of[float] = ...,
        change_low: _Of[float] = ...,
        change_high: _Of[float] = ...,
        impact: _Of[float] = ...,
        pooled_change: _Of[float] = ...,
        effect_size: _Of[float] = ...,
        p_value: _Of[float] = ...,
        versus_common: _Of[float] = ...,
        versus_common_low: _Of[float] = ...,
        versus_common_high: _Of[float] = ...,
        loss_positions: _Of[SupportsIndex] = ...,
        delta_loss: _Of[float] = ...,
        delta_loss_low: _Of[float] = ...,
        delta_loss_high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _agg_attention_activation(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        head_ablation: _Of[str] = ...,
        edit: _Of[SupportsIndex] = ...,
        cell: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        activation_sum: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _agg_attention_distance(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        cell: _Of[SupportsIndex] = ...,
        distance: _Of[SupportsIndex] = ...,
        weight_sum: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _agg_attention_head(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        cell: _Of[SupportsIndex] = ...,
        gini_sum: _Of[float] = ...,
        entropy_sum: _Of[float] = ...,
        first_sum: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _agg_effect(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        percentile_bucket: _Of[float] = ...,
        occurrence_bucket: _Of[float] = ...,
        is_word: _Of[bool] = ...,
        is_elbow: _Of[bool] = ...,
        matched_group: _Of[str] = ...,
        positions: _Of[SupportsIndex] = ...,
        abs_delta_sum: _Of[float] = ...,
        delta_sum: _Of[float] = ...,
        square_sum: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _attention_impact(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        edit: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        mean_activation: _Of[float] = ...,
        mean_change: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _attention_routing(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        common_positions: _Of[SupportsIndex] = ...,
        units: _Of[SupportsIndex] = ...,
        correlation: _Of[float] = ...,
        correlation_low: _Of[float] = ...,
        correlation_high: _Of[float] = ...,
        correlation_sd: _Of[float] = ...,
        self_correlation: _Of[float] = ...,
        gini: _Of[float] = ...,
        common_gini: _Of[float] = ...,
        gini_sd: _Of[float] = ...,
        common_gini_sd: _Of[float] = ...,
        gini_difference: _Of[float] = ...,
        gini_low: _Of[float] = ...,
        gini_high: _Of[float] = ...,
        gini_p_value: _Of[float] = ...,
        gini_p_holm: _Of[float] = ...,
        profile_gini: _Of[float] = ...,
        common_profile_gini: _Of[float] = ...,
        entropy: _Of[float] = ...,
        common_entropy: _Of[float] = ...,
        first_share: _Of[float] = ...,
        common_first_share: _Of[float] = ...,
        mean_distance: _Of[float] = ...,
        common_mean_distance: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _attention_unit(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        edit: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        activation_sum: _Of[float] = ...,
        has_loss: _Of[bool] = ...,
    ) -> pl.DataFrame: ...

class _attribution_agreement(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        decile: _Of[SupportsIndex] = ...,
        rank_correlation: _Of[float] = ...,
        rank_correlation_low: _Of[float] = ...,
        rank_correlation_high: _Of[float] = ...,
        shared_10: _Of[SupportsIndex] = ...,
        shared_10_low: _Of[float] = ...,
        shared_10_high: _Of[float] = ...,
        shared_50: _Of[SupportsIndex] = ...,
        shared_50_low: _Of[float] = ...,
        shared_50_high: _Of[float] = ...,
        wrong_sign_share: _Of[float] = ...,
        wrong_sign_share_low: _Of[float] = ...,
        wrong_sign_share_high: _Of[float] = ...,
        relative_error: _Of[float] = ...,
        relative_error_low: _Of[float] = ...,
        relative_error_high: _Of[float] = ...,
        error_ratio: _Of[float] = ...,
        error_ratio_low: _Of[float] = ...,
        error_ratio_high: _Of[float] = ...,
        smallest_delta: _Of[float] = ...,
        largest_delta: _Of[float] = ...,
        pairs: _Of[SupportsIndex] = ...,
        pairs_left_out: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _attribution_error(Described):
    def __call__(
        self,
        run: str,
        *,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        decile: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        error_class: _Of[SupportsIndex] = ...,
        pairs: _Of[SupportsIndex] = ...,
        wrong_signs: _Of[SupportsIndex] = ...,
        abs_delta_sum: _Of[float] = ...,
        abs_error_sum: _Of[float] = ...,
        smallest_delta: _Of[float] = ...,
        largest_delta: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _attribution_sum(Described):
    def __call__(
        self,
        run: str,
        *,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        abs_delta_sum: _Of[float] = ...,
        abs_attributed_sum: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _cosine_similarity(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        space: _Of[str] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        comparison: _Of[str] = ...,
        other_group: _Of[str] = ...,
        other_k: _Of[SupportsIndex] = ...,
        other_draw: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        pairs: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        mean_cosine: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _dim_attention(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        layers: object = ...,
        heads: object = ...,
        loss_positions: _Of[SupportsIndex] = ...,
        windows_per_unit: _Of[SupportsIndex] = ...,
        structural_check_error: _Of[float] = ...,
        seconds: _Of[float] = ...,
        code_version: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _dim_attention_cell(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        cell: _Of[SupportsIndex] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        window_id: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        has_loss: _Of[bool] = ...,
    ) -> pl.DataFrame: ...

class _dim_attention_edit(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        edit: _Of[SupportsIndex] = ...,
        kind: _Of[str] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        feeds_neurons: _Of[bool] = ...,
        largest_change: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _dim_document(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        document_id: _Of[SupportsIndex] = ...,
        document_hash: _Of[str] = ...,
        domain: _Of[str] = ...,
        tokens: _Of[SupportsIndex] = ...,
        first_position: _Of[SupportsIndex] = ...,
    ) -> pl.DataFrame: ...

class _dim_group(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        neurons: object = ...,
        source: _Of[str] = ...,
        structural_check_error: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _dim_neuron(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        mean_activation: _Of[float] = ...,
        reference_activation: _Of[float] = ...,
        reference_error: _Of[float] = ...,
        reference_is_outside: _Of[bool] = ...,
        w_out_norm: _Of[float] = ...,
        null_space_share: _Of[float] = ...,
        logit_variance: _Of[float] = ...,
        frequency_correlation: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _dim_position(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        window_offset: _Of[SupportsIndex] = ...,
        document_id: _Of[SupportsIndex] = ...,
        input_token_id: _Of[SupportsIndex] = ...,
        target_token_id: _Of[SupportsIndex] = ...,
        loss: _Of[float] = ...,
        entropy: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _dim_run(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        run_key: _Of[SupportsIndex] = ...,
        model: _Of[str] = ...,
        revision: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        status: _Of[str] = ...,
        positions: _Of[SupportsIndex] = ...,
        neurons: _Of[SupportsIndex] = ...,
        window_length: _Of[SupportsIndex] = ...,
        tokenizer_id: _Of[str] = ...,
        frequency_source_id: _Of[str] = ...,
        corpus: _Of[str] = ...,
        model_hash: _Of[str] = ...,
        corpus_hash: _Of[str] = ...,
        ablation: _Of[str] = ...,
        seed: _Of[SupportsIndex] = ...,
        dtype: _Of[str] = ...,
        device: _Of[str] = ...,
        tolerance: _Of[float] = ...,
        exact_pairs: _Of[SupportsIndex] = ...,
        self_check_error: _Of[float] = ...,
        structural_check_error: _Of[float] = ...,
        options: object = ...,
        facts: object = ...,
        created_at: _Of[datetime] = ...,
        seconds: _Of[float] = ...,
        code_version: _Of[str] = ...,
        separator_token_id: _Of[SupportsIndex] = ...,
        effects: object = ...,
        packages: object = ...,
        frequency_source: _Of[str] = ...,
        status_reason: _Of[str] = ...,
        stage_seconds: object = ...,
        warnings: object = ...,
        identity: object = ...,
        published_at: _Of[datetime] = ...,
        contexts: _Of[str] = ...,
        store: _Of[str] = ...,
        training_stage: _Of[SupportsIndex] = ...,
        training_step: _Of[SupportsIndex] = ...,
        training_tokens: _Of[SupportsIndex] = ...,
        training_branch: _Of[str] = ...,
        twin_of: _Of[str] = ...,
        quantisation: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _dim_token(Described):
    def __call__(
        self,
        *,
        tokenizer_id: _Of[str] = ...,
        token_id: _Of[SupportsIndex] = ...,
        text: _Of[str] = ...,
        is_word: _Of[bool] = ...,
        starts_word: _Of[bool] = ...,
        is_special: _Of[bool] = ...,
        bytes: object = ...,
    ) -> pl.DataFrame: ...

class _effective_dimension(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        standardised: _Of[bool] = ...,
        threshold: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        dimension: _Of[SupportsIndex] = ...,
        interpolated_dimension: _Of[float] = ...,
        dimension_percent: _Of[float] = ...,
        dimension_percent_low: _Of[float] = ...,
        dimension_percent_high: _Of[float] = ...,
        participation_ratio: _Of[float] = ...,
        participation_percent: _Of[float] = ...,
        participation_percent_low: _Of[float] = ...,
        participation_percent_high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _emergence(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        training_stage: _Of[SupportsIndex] = ...,
        training_step: _Of[SupportsIndex] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        chosen_at: _Of[str] = ...,
        quantity: _Of[str] = ...,
        rank: _Of[SupportsIndex] = ...,
        value: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _fact_file(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        first_neuron: _Of[SupportsIndex] = ...,
        last_neuron: _Of[SupportsIndex] = ...,
        path: _Of[str] = ...,
        rows: _Of[SupportsIndex] = ...,
        bytes: _Of[SupportsIndex] = ...,
        sha256: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _fct_attention_effect(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        head_ablation: _Of[str] = ...,
        edit: _Of[SupportsIndex] = ...,
        position_id: _Of[SupportsIndex] = ...,
        delta_loss: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _fct_effect(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        position_id: _Of[SupportsIndex] = ...,
        activation: _Of[float] = ...,
        delta_loss: _Of[float] = ...,
        direct_delta_loss: _Of[float] = ...,
        delta_entropy: _Of[float] = ...,
        delta_kl: _Of[float] = ...,
        frozen_frequency_delta_loss: _Of[float] = ...,
        attributed_delta_loss: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _fct_group_effect(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
        delta_loss: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _graph_modularity(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        method: _Of[str] = ...,
        communities_asked: _Of[SupportsIndex] = ...,
        threshold: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        edges: _Of[SupportsIndex] = ...,
        negative_edges: _Of[SupportsIndex] = ...,
        isolated: _Of[SupportsIndex] = ...,
        components: _Of[SupportsIndex] = ...,
        runs: _Of[SupportsIndex] = ...,
        modularity: _Of[float] = ...,
        signed_modularity: _Of[float] = ...,
        communities: _Of[SupportsIndex] = ...,
        signed_modularity_low: _Of[float] = ...,
        signed_modularity_high: _Of[float] = ...,
        signed_modularity_mean: _Of[float] = ...,
        signed_modularity_sd: _Of[float] = ...,
        communities_mean: _Of[float] = ...,
        communities_sd: _Of[float] = ...,
        run_signed_modularity: object = ...,
        neurons: object = ...,
        labels: object = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _group_activation(Described):
    def __call__(
        self,
        run: str,
        preset: str,
        draws: int = 20,
        *,
        group_name: _Of[str] = ...,
        draw: _Of[SupportsIndex] = ...,
        position_id: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        activation: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _group_test(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        analysis: _Of[str] = ...,
        statistic: _Of[str] = ...,
        setting: _Of[str] = ...,
        group_name: _Of[str] = ...,
        other_group: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        test: _Of[str] = ...,
        sample: _Of[str] = ...,
        sample_size: _Of[SupportsIndex] = ...,
        reference: _Of[str] = ...,
        reference_size: _Of[SupportsIndex] = ...,
        exchangeable: _Of[bool] = ...,
        alternative: _Of[str] = ...,
        value: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        reference_mean: _Of[float] = ...,
        reference_sd: _Of[float] = ...,
        test_statistic: _Of[float] = ...,
        cohens_d: _Of[float] = ...,
        p_value: _Of[float] = ...,
        family: _Of[str] = ...,
        tests: _Of[SupportsIndex] = ...,
        p_bonferroni: _Of[float] = ...,
        p_holm: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _group_test_across(Described):
    def __call__(
        self,
        runs: str | Iterable[str],
        level: float = 0.05,
        *,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        analysis: _Of[str] = ...,
        statistic: _Of[str] = ...,
        setting: _Of[str] = ...,
        group_name: _Of[str] = ...,
        other_group: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        test: _Of[str] = ...,
        reference_size: _Of[SupportsIndex] = ...,
        value: _Of[float] = ...,
        p_value: _Of[float] = ...,
        family: _Of[str] = ...,
        tests: _Of[SupportsIndex] = ...,
        p_bonferroni: _Of[float] = ...,
        p_holm: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _group_where(Described):
    def __call__(
        self,
        run: str,
        percentile: object,
        occurrences: bool = False,
        words: bool = False,
        of_input: bool = False,
        elbow: bool = True,
        strict: bool = False,
        *,
        token_group: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
    ) -> pl.DataFrame: ...

class _head_ablation(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        head_ablation: _Of[str] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        target: _Of[str] = ...,
        attention_layer: _Of[SupportsIndex] = ...,
        head: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        units: _Of[SupportsIndex] = ...,
        activation_change: _Of[float] = ...,
        change_low: _Of[float] = ...,
        change_high: _Of[float] = ...,
        impact: _Of[float] = ...,
        pooled_change: _Of[float] = ...,
        effect_size: _Of[float] = ...,
        p_value: _Of[float] = ...,
        versus_common: _Of[float] = ...,
        versus_common_low: _Of[float] = ...,
        versus_common_high: _Of[float] = ...,
        head_share: _Of[float] = ...,
        random_share: _Of[float] = ...,
        random_share_sd: _Of[float] = ...,
        random_groups: _Of[SupportsIndex] = ...,
        share_p_value: _Of[float] = ...,
        share_p_holm: _Of[float] = ...,
        loss_positions: _Of[SupportsIndex] = ...,
        delta_loss: _Of[float] = ...,
        delta_loss_low: _Of[float] = ...,
        delta_loss_high: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _influence_at(Described):
    def __call__(
        self,
        run: str,
        percentile: object,
        occurrences: bool = False,
        words: bool = False,
        *,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        influence: _Of[float] = ...,
        mean_delta_loss: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
    ) -> pl.DataFrame: ...

class _influence_interval(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        quantity: _Of[str] = ...,
        neuron: _Of[SupportsIndex] = ...,
        estimate: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        determined: _Of[bool] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _influence_slope(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        log_rank: _Of[float] = ...,
        local_slope: _Of[float] = ...,
        second_derivative: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _influence_where(Described):
    def __call__(
        self,
        run: str,
        percentile: object,
        occurrences: bool = False,
        words: bool = False,
        of_input: bool = False,
        elbow: bool = True,
        strict: bool = False,
        *,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        influence: _Of[float] = ...,
        mean_delta_loss: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _layer_profile(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        layers: _Of[SupportsIndex] = ...,
        last_run_id: _Of[str] = ...,
        edit_scope: _Of[str] = ...,
        model: _Of[str] = ...,
        revision: _Of[str] = ...,
        ablation: _Of[str] = ...,
        neurons: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        mean_influence: _Of[float] = ...,
        largest_influence: _Of[float] = ...,
        head_share: _Of[float] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        break_rank: _Of[SupportsIndex] = ...,
        break_low: _Of[SupportsIndex] = ...,
        break_high: _Of[SupportsIndex] = ...,
        decision: _Of[str] = ...,
        p_value: _Of[float] = ...,
        specific_to_rare: _Of[SupportsIndex] = ...,
        specific_to_common: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _measured_value(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        paper: _Of[str] = ...,
        place: _Of[str] = ...,
        group_name: _Of[str] = ...,
        quantity: _Of[str] = ...,
        definition: _Of[str] = ...,
        measured_group: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        value: _Of[float] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        spread: _Of[float] = ...,
        random_mean: _Of[float] = ...,
        random_sd: _Of[float] = ...,
        p_value: _Of[float] = ...,
        analysis: _Of[str] = ...,
        statistic: _Of[str] = ...,
        setting: _Of[str] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _mutual_information(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        estimator: _Of[str] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        comparison: _Of[str] = ...,
        other_group: _Of[str] = ...,
        other_k: _Of[SupportsIndex] = ...,
        other_draw: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        pairs: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        mean_information: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_activation(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        bins: int = 40,
        *,
        layer: _Of[SupportsIndex] = ...,
        bin: _Of[SupportsIndex] = ...,
        low: _Of[float] = ...,
        high: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        rare: _Of[SupportsIndex] = ...,
        delta_loss: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_cluster(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        threshold: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        undefined_neurons: _Of[SupportsIndex] = ...,
        clusters: _Of[SupportsIndex] = ...,
        largest_cluster: _Of[SupportsIndex] = ...,
        neurons: object = ...,
        labels: object = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_context(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        contexts: int = 5,
        before: int = 12,
        *,
        layer: _Of[SupportsIndex] = ...,
        direction: _Of[str] = ...,
        place: _Of[SupportsIndex] = ...,
        position_id: _Of[SupportsIndex] = ...,
        token_group: _Of[str] = ...,
        context: _Of[str] = ...,
        target: _Of[str] = ...,
        loss: _Of[float] = ...,
        delta_loss: _Of[float] = ...,
        activation: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_deviation(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        deviation: _Of[float] = ...,
        local_slope: _Of[float] = ...,
        regime: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_deviation_of(Described):
    def __call__(
        self,
        statistic: str,
        role: str,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        influence: _Of[float] = ...,
        deviation: _Of[float] = ...,
        regime: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_group(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        neuron: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_group_summary(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        members: _Of[SupportsIndex] = ...,
        settled_boost: _Of[SupportsIndex] = ...,
        settled_suppress: _Of[SupportsIndex] = ...,
        mixed: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_influence(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        influence: _Of[float] = ...,
        mean_delta_loss: _Of[float] = ...,
        abs_mean_delta_loss: _Of[float] = ...,
        abs_mean_rank: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        role: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_match(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        other_run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        other_layer: _Of[SupportsIndex] = ...,
        other_neuron: _Of[SupportsIndex] = ...,
        correlation: _Of[float] = ...,
        correlation_low: _Of[float] = ...,
        correlation_high: _Of[float] = ...,
        chance_correlation: _Of[float] = ...,
        is_mutual: _Of[bool] = ...,
        positions: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_mediation(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        direct_share: _Of[float] = ...,
        frequency_mediation: _Of[float] = ...,
        mean_direct_delta_loss: _Of[float] = ...,
        mean_delta_entropy: _Of[float] = ...,
        mean_delta_kl: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_moments(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        *,
        layer: _Of[SupportsIndex] = ...,
        quantity: _Of[str] = ...,
        token_group: _Of[str] = ...,
        positions: _Of[SupportsIndex] = ...,
        mean: _Of[float] = ...,
        sd: _Of[float] = ...,
        skew: _Of[float] = ...,
        kurtosis: _Of[float] = ...,
        smallest: _Of[float] = ...,
        largest: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_neighbour(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        neighbours: int = 5,
        *,
        layer: _Of[SupportsIndex] = ...,
        kind: _Of[str] = ...,
        place: _Of[SupportsIndex] = ...,
        other_neuron: _Of[SupportsIndex] = ...,
        similarity: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_profile(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        role: _Of[str] = ...,
        settled_role: _Of[str] = ...,
        influence: _Of[float] = ...,
        mean_delta_loss: _Of[float] = ...,
        mean_delta_low: _Of[float] = ...,
        mean_delta_high: _Of[float] = ...,
        deviation: _Of[float] = ...,
        regime: _Of[str] = ...,
        mean_activation: _Of[float] = ...,
        w_out_norm: _Of[float] = ...,
        null_space_share: _Of[float] = ...,
        logit_variance: _Of[float] = ...,
        frequency_correlation: _Of[float] = ...,
        direct_share: _Of[float] = ...,
        frequency_mediation: _Of[float] = ...,
        raises: object = ...,
        lowers: object = ...,
    ) -> pl.DataFrame: ...

class _neuron_sign(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        mean_delta_loss: _Of[float] = ...,
        mean_delta_low: _Of[float] = ...,
        mean_delta_high: _Of[float] = ...,
        role: _Of[str] = ...,
        settled_role: _Of[str] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_specificity(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        matching: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        ratio: _Of[float] = ...,
        ratio_low: _Of[float] = ...,
        ratio_high: _Of[float] = ...,
        p_value: _Of[float] = ...,
        adjusted_p_value: _Of[float] = ...,
        detectable_ratio: _Of[float] = ...,
        specific_to: _Of[str] = ...,
        rare_positions: _Of[SupportsIndex] = ...,
        common_positions: _Of[SupportsIndex] = ...,
        permuted_positions: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        permutations: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _neuron_target(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        fewest: int = 5,
        *,
        layer: _Of[SupportsIndex] = ...,
        token_id: _Of[SupportsIndex] = ...,
        text: _Of[str] = ...,
        positions: _Of[SupportsIndex] = ...,
        mean_delta_loss: _Of[float] = ...,
        sd_delta_loss: _Of[float] = ...,
        mean_activation: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_token(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        direction: _Of[str] = ...,
        rank: _Of[SupportsIndex] = ...,
        token_id: _Of[SupportsIndex] = ...,
        logit: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _neuron_top_activation(Described):
    def __call__(
        self,
        run: str,
        neuron: SupportsIndex,
        contexts: int = 5,
        around: int = 40,
        *,
        layer: _Of[SupportsIndex] = ...,
        sample: _Of[str] = ...,
        place: _Of[SupportsIndex] = ...,
        position_id: _Of[SupportsIndex] = ...,
        quantile: _Of[float] = ...,
        activation: _Of[float] = ...,
        delta_loss: _Of[float] = ...,
        token_group: _Of[str] = ...,
        at: _Of[SupportsIndex] = ...,
        tokens: object = ...,
        activations: object = ...,
        delta_losses: object = ...,
    ) -> pl.DataFrame: ...

class _neuron_weight(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        w_out: object = ...,
        w_in: object = ...,
        w_up: object = ...,
    ) -> pl.DataFrame: ...

class _plateau_difference(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        size: _Of[SupportsIndex] = ...,
        size_low: _Of[float] = ...,
        size_high: _Of[float] = ...,
        determined: _Of[bool] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        first: _Of[SupportsIndex] = ...,
        shared: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _plateau_match(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        other_run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        other_layer: _Of[SupportsIndex] = ...,
        first: _Of[SupportsIndex] = ...,
        other_first: _Of[SupportsIndex] = ...,
        matched: _Of[SupportsIndex] = ...,
        expected: _Of[float] = ...,
        p_value: _Of[float] = ...,
        head_correlation: _Of[float] = ...,
        layer_correlation: _Of[float] = ...,
        chance_correlation: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _position_context(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
        pair_id: _Of[SupportsIndex] = ...,
        context_id: _Of[SupportsIndex] = ...,
        token_group: _Of[str] = ...,
        token_id: _Of[SupportsIndex] = ...,
        domain: _Of[str] = ...,
        part_of_speech: _Of[str] = ...,
        sentence_place: _Of[str] = ...,
        is_whole_word: _Of[bool] = ...,
        syntactic_role: _Of[str] = ...,
        document_id: _Of[SupportsIndex] = ...,
    ) -> pl.DataFrame: ...

class _position_frequency(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
        window_id: _Of[SupportsIndex] = ...,
        token_id: _Of[SupportsIndex] = ...,
        frequency: _Of[float] = ...,
        percentile: _Of[float] = ...,
        occurrence_percentile: _Of[float] = ...,
        is_word: _Of[bool] = ...,
        starts_word: _Of[bool] = ...,
        is_elbow: _Of[bool] = ...,
    ) -> pl.DataFrame: ...

class _position_group(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        position_id: _Of[SupportsIndex] = ...,
    ) -> pl.DataFrame: ...

class _power_law_at(Described):
    def __call__(
        self,
        run: str,
        first: object,
        last: object,
        *,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        first_rank: _Of[SupportsIndex] = ...,
        last_rank: _Of[SupportsIndex] = ...,
        kappa: _Of[float] = ...,
        beta: _Of[float] = ...,
        r2: _Of[float] = ...,
        share_within_0_1: _Of[float] = ...,
        neurons_above_0_5: _Of[SupportsIndex] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _power_law_fit(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        statistic: _Of[str] = ...,
        role: _Of[str] = ...,
        rank_window: _Of[str] = ...,
        kappa: _Of[float] = ...,
        beta: _Of[float] = ...,
        r2: _Of[float] = ...,
        tail: _Of[float] = ...,
        head_rank: _Of[SupportsIndex] = ...,
        step: _Of[float] = ...,
        head_slope: _Of[float] = ...,
        first_rank: _Of[SupportsIndex] = ...,
        last_rank: _Of[SupportsIndex] = ...,
        straight_share: _Of[float] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _power_law_fit_of(Described):
    def __call__(
        self,
        statistic: str,
        role: str,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        rank_window: _Of[str] = ...,
        kappa: _Of[float] = ...,
        beta: _Of[float] = ...,
        r2: _Of[float] = ...,
        tail: _Of[float] = ...,
        head_rank: _Of[SupportsIndex] = ...,
        step: _Of[float] = ...,
        head_slope: _Of[float] = ...,
        first_rank: _Of[SupportsIndex] = ...,
        last_rank: _Of[SupportsIndex] = ...,
        straight_share: _Of[float] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _preset(Described):
    def __call__(
        self,
        *,
        preset: _Of[str] = ...,
        in_words: _Of[str] = ...,
        percentile: _Of[float] = ...,
        occurrences: _Of[bool] = ...,
        words: _Of[bool] = ...,
        elbow: _Of[bool] = ...,
        strict: _Of[bool] = ...,
        rare_below: _Of[float] = ...,
        common_above: _Of[float] = ...,
        least_source: _Of[SupportsIndex] = ...,
        paper: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _published_value(Described):
    def __call__(
        self,
        *,
        paper: _Of[str] = ...,
        place: _Of[str] = ...,
        model: _Of[str] = ...,
        group_name: _Of[str] = ...,
        quantity: _Of[str] = ...,
        relation: _Of[str] = ...,
        value: _Of[float] = ...,
        value_to: _Of[float] = ...,
        plus_minus: _Of[float] = ...,
        unit: _Of[str] = ...,
        kind: _Of[str] = ...,
        note: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _quality_result(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        suite: _Of[str] = ...,
        relation: _Of[str] = ...,
        expectation: _Of[str] = ...,
        observed: _Of[float] = ...,
        expected: _Of[str] = ...,
        success: _Of[bool] = ...,
        is_integrity: _Of[bool] = ...,
        checked_by: _Of[str] = ...,
        checked_at: _Of[datetime] = ...,
        least: _Of[float] = ...,
        most: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _ranking_overlap(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        ranking: _Of[str] = ...,
        other_run_id: _Of[str] = ...,
        other_preset: _Of[str] = ...,
        other_token_group: _Of[str] = ...,
        other_ranking: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        rank_correlation: _Of[float] = ...,
        rank_correlation_low: _Of[float] = ...,
        rank_correlation_high: _Of[float] = ...,
        shared_10: _Of[SupportsIndex] = ...,
        shared_10_low: _Of[float] = ...,
        shared_10_high: _Of[float] = ...,
        shared_50: _Of[SupportsIndex] = ...,
        shared_50_low: _Of[float] = ...,
        shared_50_high: _Of[float] = ...,
        expected_10: _Of[float] = ...,
        p_10: _Of[float] = ...,
        expected_50: _Of[float] = ...,
        p_50: _Of[float] = ...,
        neurons: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _reference_agreement(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        other_run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        ablation: _Of[str] = ...,
        other_ablation: _Of[str] = ...,
        rank_correlation: _Of[float] = ...,
        rank_correlation_low: _Of[float] = ...,
        rank_correlation_high: _Of[float] = ...,
        shared_10: _Of[SupportsIndex] = ...,
        shared_10_low: _Of[float] = ...,
        shared_10_high: _Of[float] = ...,
        shared_50: _Of[SupportsIndex] = ...,
        shared_50_low: _Of[float] = ...,
        shared_50_high: _Of[float] = ...,
        first: _Of[SupportsIndex] = ...,
        shared_first: _Of[SupportsIndex] = ...,
        shared_first_low: _Of[float] = ...,
        shared_first_high: _Of[float] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        other_kappa: _Of[float] = ...,
        other_kappa_low: _Of[float] = ...,
        other_kappa_high: _Of[float] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        other_step: _Of[float] = ...,
        other_step_low: _Of[float] = ...,
        other_step_high: _Of[float] = ...,
        break_rank: _Of[SupportsIndex] = ...,
        break_low: _Of[SupportsIndex] = ...,
        break_high: _Of[SupportsIndex] = ...,
        break_determined: _Of[bool] = ...,
        other_break_rank: _Of[SupportsIndex] = ...,
        other_break_low: _Of[SupportsIndex] = ...,
        other_break_high: _Of[SupportsIndex] = ...,
        other_break_determined: _Of[bool] = ...,
        decision: _Of[str] = ...,
        p_value: _Of[float] = ...,
        other_decision: _Of[str] = ...,
        other_p_value: _Of[float] = ...,
        windows: _Of[SupportsIndex] = ...,
        draws: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _regime_decision(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        statistic: _Of[str] = ...,
        role: _Of[str] = ...,
        decision: _Of[str] = ...,
        p_value: _Of[float] = ...,
        scan_p_value: _Of[float] = ...,
        jump_p_value: _Of[float] = ...,
        power: _Of[float] = ...,
        break_rank: _Of[SupportsIndex] = ...,
        break_low: _Of[SupportsIndex] = ...,
        break_high: _Of[SupportsIndex] = ...,
        break_determined: _Of[bool] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        head: _Of[str] = ...,
        head_slope: _Of[float] = ...,
        head_slope_low: _Of[float] = ...,
        head_slope_high: _Of[float] = ...,
        slope_ratio: _Of[float] = ...,
        slope_ratio_low: _Of[float] = ...,
        slope_ratio_high: _Of[float] = ...,
        equal_slope_p_value: _Of[float] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        neurons_above_0_5: _Of[SupportsIndex] = ...,
        cliff_first: _Of[SupportsIndex] = ...,
        cliff_last: _Of[SupportsIndex] = ...,
        slope_break_log_rank: _Of[float] = ...,
        slope_break_low: _Of[float] = ...,
        slope_break_high: _Of[float] = ...,
        slope_break_form: _Of[str] = ...,
        slope_break_change: _Of[float] = ...,
        slope_break_p_value: _Of[float] = ...,
        slope_breaks_near_5: _Of[bool] = ...,
        draws: _Of[SupportsIndex] = ...,
        resamples: _Of[SupportsIndex] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _regime_decision_of(Described):
    def __call__(
        self,
        statistic: str,
        role: str,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        decision: _Of[str] = ...,
        p_value: _Of[float] = ...,
        scan_p_value: _Of[float] = ...,
        jump_p_value: _Of[float] = ...,
        power: _Of[float] = ...,
        break_rank: _Of[SupportsIndex] = ...,
        break_low: _Of[SupportsIndex] = ...,
        break_high: _Of[SupportsIndex] = ...,
        break_determined: _Of[bool] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        head: _Of[str] = ...,
        head_slope: _Of[float] = ...,
        head_slope_low: _Of[float] = ...,
        head_slope_high: _Of[float] = ...,
        slope_ratio: _Of[float] = ...,
        slope_ratio_low: _Of[float] = ...,
        slope_ratio_high: _Of[float] = ...,
        equal_slope_p_value: _Of[float] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        neurons_above_0_5: _Of[SupportsIndex] = ...,
        cliff_first: _Of[SupportsIndex] = ...,
        cliff_last: _Of[SupportsIndex] = ...,
        slope_break_log_rank: _Of[float] = ...,
        slope_break_low: _Of[float] = ...,
        slope_break_high: _Of[float] = ...,
        slope_break_form: _Of[str] = ...,
        slope_break_change: _Of[float] = ...,
        slope_break_p_value: _Of[float] = ...,
        slope_breaks_near_5: _Of[bool] = ...,
        draws: _Of[SupportsIndex] = ...,
        resamples: _Of[SupportsIndex] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _regime_fit(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        rank_window: _Of[str] = ...,
        head: _Of[str] = ...,
        tail: _Of[str] = ...,
        pieces: _Of[SupportsIndex] = ...,
        kappa: _Of[float] = ...,
        beta: _Of[float] = ...,
        r2: _Of[float] = ...,
        first_rank: _Of[SupportsIndex] = ...,
        last_rank: _Of[SupportsIndex] = ...,
        share_within_0_1: _Of[float] = ...,
        neurons_above_0_5: _Of[SupportsIndex] = ...,
        head_kappa: _Of[float] = ...,
        step: _Of[float] = ...,
        tail_slope: _Of[float] = ...,
        bic: _Of[float] = ...,
        parameters: _Of[SupportsIndex] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _run_warning(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        kind: _Of[str] = ...,
        preset: _Of[str] = ...,
        message: _Of[str] = ...,
        observed: _Of[float] = ...,
        threshold: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _spectral_density(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        matrix: _Of[str] = ...,
        standardised: _Of[bool] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        bin: _Of[SupportsIndex] = ...,
        log10_left: _Of[float] = ...,
        log10_right: _Of[float] = ...,
        eigenvalues: _Of[SupportsIndex] = ...,
        density: _Of[float] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _threshold_sensitivity(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        percentile: _Of[float] = ...,
        positions: _Of[SupportsIndex] = ...,
        distinct_threshold: _Of[bool] = ...,
        same_as_percentile: _Of[float] = ...,
        kappa: _Of[float] = ...,
        kappa_low: _Of[float] = ...,
        kappa_high: _Of[float] = ...,
        beta: _Of[float] = ...,
        r2: _Of[float] = ...,
        first_rank: _Of[SupportsIndex] = ...,
        last_rank: _Of[SupportsIndex] = ...,
        straight_share: _Of[float] = ...,
        share_within_0_1: _Of[float] = ...,
        neurons_above_0_5: _Of[SupportsIndex] = ...,
        decision: _Of[str] = ...,
        p_value: _Of[float] = ...,
        power: _Of[float] = ...,
        break_rank: _Of[SupportsIndex] = ...,
        break_low: _Of[SupportsIndex] = ...,
        break_high: _Of[SupportsIndex] = ...,
        break_determined: _Of[bool] = ...,
        step: _Of[float] = ...,
        step_low: _Of[float] = ...,
        step_high: _Of[float] = ...,
        head: _Of[str] = ...,
        head_slope: _Of[float] = ...,
        top_overlap: _Of[float] = ...,
        rank_correlation: _Of[float] = ...,
        ranks: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _token_frequency(Described):
    def __call__(
        self,
        *,
        tokenizer_id: _Of[str] = ...,
        frequency_source_id: _Of[str] = ...,
        token_id: _Of[SupportsIndex] = ...,
        count: _Of[SupportsIndex] = ...,
        frequency: _Of[float] = ...,
        percentile: _Of[float] = ...,
        occurrence_percentile: _Of[float] = ...,
        rank: _Of[SupportsIndex] = ...,
        is_elbow: _Of[bool] = ...,
    ) -> pl.DataFrame: ...

class _token_group_size(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        positions: _Of[SupportsIndex] = ...,
        tokens: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class _token_neuron(Described):
    def __call__(
        self,
        run: str,
        text: str,
        *,
        token_id: _Of[SupportsIndex] = ...,
        positions: _Of[SupportsIndex] = ...,
        windows: _Of[SupportsIndex] = ...,
        layer: _Of[SupportsIndex] = ...,
        neuron: _Of[SupportsIndex] = ...,
        rank: _Of[SupportsIndex] = ...,
        influence: _Of[float] = ...,
        mean_delta_loss: _Of[float] = ...,
        mean_delta_low: _Of[float] = ...,
        mean_delta_high: _Of[float] = ...,
        mean_elsewhere: _Of[float] = ...,
        times_elsewhere: _Of[float] = ...,
    ) -> pl.DataFrame: ...

class _weight_spectrum(Described):
    def __call__(
        self,
        *,
        run: _Of[str] = ...,
        run_id: _Of[str] = ...,
        preset: _Of[str] = ...,
        token_group: _Of[str] = ...,
        layer: _Of[SupportsIndex] = ...,
        matrix: _Of[str] = ...,
        standardised: _Of[bool] = ...,
        group_name: _Of[str] = ...,
        k: _Of[SupportsIndex] = ...,
        draw: _Of[SupportsIndex] = ...,
        pool: _Of[str] = ...,
        rule: _Of[str] = ...,
        eigenvalues: _Of[SupportsIndex] = ...,
        largest_eigenvalue: _Of[float] = ...,
        alpha: _Of[float] = ...,
        alpha_low: _Of[float] = ...,
        alpha_high: _Of[float] = ...,
        density_exponent: _Of[float] = ...,
        tail_size: _Of[SupportsIndex] = ...,
        lambda_min: _Of[float] = ...,
        distance: _Of[float] = ...,
        rows: _Of[SupportsIndex] = ...,
        columns: _Of[SupportsIndex] = ...,
        equal_aspect_alpha: _Of[float] = ...,
        equal_aspect_sd: _Of[float] = ...,
        aspect: _Of[float] = ...,
        subsamples: _Of[SupportsIndex] = ...,
        reason: _Of[str] = ...,
    ) -> pl.DataFrame: ...

class RelationNames(ABC):
    @abstractmethod
    def _method(self, relation: Relation) -> Described: ...
    @property
    def activation_correlation(self) -> _activation_correlation:
        """mean Pearson correlation of the activations within and between groups. One row per run × preset ×
        token_group × space × group × draw × comparison × other group.
        """

    @property
    def activation_patching(self) -> _activation_patching:
        """what another context's attention does to a group of neurons, and the loss. One row per run × preset ×
        token_group × group_name × k × target × attention_layer × head.
        """

    @property
    def agg_attention_activation(self) -> _agg_attention_activation:
        """what an edit does to each neuron, summed over a cell. One row per run × head_ablation × edit × cell ×
        neuron.
        """

    @property
    def agg_attention_distance(self) -> _agg_attention_distance:
        """where a head looks, summed over a cell. One row per run × head_ablation × attention_layer × head × cell ×
        distance.
        """

    @property
    def agg_attention_head(self) -> _agg_attention_head:
        """how concentrated a head's attention is, summed over a cell. One row per run × head_ablation ×
        attention_layer × head × cell.
        """

    @property
    def agg_effect(self) -> _agg_effect:
        """effects summed over positions that no threshold at a multiple of 5 tells apart. One row per run × neuron
        × window × buckets × is_word × is_elbow × matched_group.
        """

    @property
    def attention_impact(self) -> _attention_impact:
        """what an edit does to each neuron at rare and at common tokens. One row per run × head_ablation × preset ×
        token_group × edit × neuron.
        """

    @property
    def attention_routing(self) -> _attention_routing:
        """where heads look at rare and at common tokens. One row per run × preset × attention_layer × head, and one
        over all heads.
        """

    @property
    def attention_unit(self) -> _attention_unit:
        """what an edit does to a group's neurons, per unit of windows. One row per run × head_ablation × preset ×
        token_group × group × edit × window_id × neuron.
        """

    @property
    def attribution_agreement(self) -> _attribution_agreement:
        """whether first-order estimates of effects tell what the exact effects do. One row per run × preset ×
        token_group × decile.
        """

    @property
    def attribution_error(self) -> _attribution_error:
        """how far first-order estimates are from effects, counted by window. Macro attribution_error(run)."""

    @property
    def attribution_sum(self) -> _attribution_sum:
        """effects and their first-order estimates, summed by token group and window. Macro attribution_sum(run)."""

    @property
    def cosine_similarity(self) -> _cosine_similarity:
        """mean cosine similarity of activation traces and of weight vectors. One row per run × preset × token_group
        × space × group × draw × comparison × other group.
        """

    @property
    def dim_attention(self) -> _dim_attention:
        """how the attention of a run was measured. One row per run × head_ablation."""

    @property
    def dim_attention_cell(self) -> _dim_attention_cell:
        """positions of a run whose activations and attention are summed together. One row per run × head_ablation ×
        cell × token group that holds it.
        """

    @property
    def dim_attention_edit(self) -> _dim_attention_edit:
        """what was done to attention, or beside it as a control. One row per run × head_ablation × edit."""

    @property
    def dim_document(self) -> _dim_document:
        """the documents that a run drew, in the order drawn. One row per run × document."""

    @property
    def dim_group(self) -> _dim_group:
        """groups of neurons that were ablated at once (`ingest --group`). One row per run × group_name."""

    @property
    def dim_neuron(self) -> _dim_neuron:
        """the neurons of a run's layer. One row per run × neuron."""

    @property
    def dim_position(self) -> _dim_position:
        """the positions at which every neuron was ablated. One row per run × position."""

    @property
    def dim_run(self) -> _dim_run:
        """what was ingested: from which model and text, how, and how far it got. One row per run."""

    @property
    def dim_token(self) -> _dim_token:
        """the vocabulary of a tokenizer. One row per tokenizer × token."""

    @property
    def effective_dimension(self) -> _effective_dimension:
        """the number of dimensions in which a group of neurons acts. One row per run × preset × token_group ×
        group_name × k × draw × standardised × threshold.
        """

    @property
    def emergence(self) -> _emergence:
        """a series of checkpoints followed over its training steps. One row per run × preset × token_group ×
        group_name × chosen_at × quantity × rank.
        """

    @property
    def fact_file(self) -> _fact_file:
        """the Parquet files that hold the facts of runs in the Parquet store. One row per run × block of
        neurons.
        """

    @property
    def fct_attention_effect(self) -> _fct_attention_effect:
        """what an edit does to the loss at one position. One row per run × head_ablation × edit × position of the
        subsample.
        """

    @property
    def fct_effect(self) -> _fct_effect:
        """what ablating one neuron does to the loss at one position. One row per run × neuron × position."""

    @property
    def fct_group_effect(self) -> _fct_group_effect:
        """what ablating a group of neurons at once does to the loss at one position. One row per run × group_name ×
        position.
        """

    @property
    def graph_modularity(self) -> _graph_modularity:
        """how well a group's signed correlation graph divides into communities. One row per run × preset ×
        token_group × group_name × k × draw × method × communities_asked.
        """

    @property
    def group_activation(self) -> _group_activation:
        """how active a group of neurons is at each position, as one number. Macro group_activation(run,
        preset_name, draws := 20).
        """

    @property
    def group_test(self) -> _group_test:
        """every statistic of every group tested against random groups. One row per run × preset × token_group ×
        analysis × statistic × setting × group × test.
        """

    @property
    def group_test_across(self) -> _group_test_across:
        """the tests of several runs, corrected over all of them. Macro group_test_across(runs, level)."""

    @property
    def group_where(self) -> _group_where:
        """which positions are rare and common for a line that you choose. Macro group_where(run, percentile,
        occurrences, words, of_input, elbow, strict).
        """

    @property
    def head_ablation(self) -> _head_ablation:
        """what ablating attention heads does to a group of neurons, and to the loss. One row per run ×
        head_ablation × preset × token_group × group × target × layer × head × draw.
        """

    @property
    def influence_at(self) -> _influence_at:
        """influence with the line between rare and common drawn anywhere. Macro influence_at(run, percentile,
        occurrences := false, words := false).
        """

    @property
    def influence_interval(self) -> _influence_interval:
        """how far the numbers of a curve move with the text that was sampled. One row per run × preset ×
        token_group × quantity × neuron.
        """

    @property
    def influence_slope(self) -> _influence_slope:
        """slope and curvature of the influence curve at each rank. One row per run × preset × token_group × rank
        with an influence above 0.
        """

    @property
    def influence_where(self) -> _influence_where:
        """influence for a line between rare and common that you choose. Macro influence_where(run, percentile,
        occurrences, words, of_input, elbow, strict).
        """

    @property
    def layer_profile(self) -> _layer_profile:
        """how much the layers of a model matter, and which of their curves have a plateau. One row per run × preset
        × token_group × edit_scope.
        """

    @property
    def measured_value(self) -> _measured_value:
        """the numbers of the papers' tables, as measured here. One row per run × preset × token_group × place ×
        group_name × quantity × definition.
        """

    @property
    def mutual_information(self) -> _mutual_information:
        """mean mutual information of pairs within and between groups. One row per run × preset × token_group ×
        estimator × group × draw × comparison × other group.
        """

    @property
    def neuron_activation(self) -> _neuron_activation:
        """how a neuron's activations are spread, as a histogram. Macro neuron_activation(run, neuron_index, bins :=
        40).
        """

    @property
    def neuron_cluster(self) -> _neuron_cluster:
        """Ward clusters of a group's neurons. One row per run × preset × token_group × group_name × k × draw ×
        threshold.
        """

    @property
    def neuron_context(self) -> _neuron_context:
        """where a neuron helps and hurts most, and the text there. Macro neuron_context(run, neuron_index, contexts
        := 5, before := 12).
        """

    @property
    def neuron_deviation(self) -> _neuron_deviation:
        """how far each neuron is above or below the power law, and on which piece. One row per run × preset ×
        token_group × neuron.
        """

    @property
    def neuron_deviation_of(self) -> _neuron_deviation_of:
        """how far each neuron of a curve is above or below its power law. Macro neuron_deviation_of(of_statistic,
        of_role).
        """

    @property
    def neuron_group(self) -> _neuron_group:
        """groups of neurons chosen by what they do, and random groups to compare with. One row per run × preset ×
        token_group × group_name × k × pool × draw × neuron.
        """

    @property
    def neuron_group_summary(self) -> _neuron_group_summary:
        """the size of each group of neurons, and how many of its signs are settled. One row per run × preset ×
        token_group × group_name × k.
        """

    @property
    def neuron_influence(self) -> _neuron_influence:
        """how much each neuron matters to rare and to common targets. One row per run × preset × token_group ×
        neuron.
        """

    @property
    def neuron_match(self) -> _neuron_match:
        """the partner of each neuron in another run on the same positions. One row per run × other run × neuron."""

    @property
    def neuron_mediation(self) -> _neuron_mediation:
        """how each neuron moves the loss of a token group. One row per run × preset × token_group × neuron."""

    @property
    def neuron_moments(self) -> _neuron_moments:
        """how a neuron's activations and effects are spread, in a few numbers. Macro neuron_moments(run,
        neuron_index).
        """

    @property
    def neuron_neighbour(self) -> _neuron_neighbour:
        """the nearest neurons of a neuron in its layer. Macro neuron_neighbour(run, neuron_index, neighbours :=
        5).
        """

    @property
    def neuron_profile(self) -> _neuron_profile:
        """the ranking, and what is known about why each neuron has its place. One row per run × preset ×
        token_group × neuron.
        """

    @property
    def neuron_sign(self) -> _neuron_sign:
        """which way each neuron works on a token group, and whether the text settles it. One row per run × preset ×
        token_group × neuron.
        """

    @property
    def neuron_specificity(self) -> _neuron_specificity:
        """whether a neuron matters more for rare tokens than for common ones as hard. One row per run × preset ×
        matching × neuron.
        """

    @property
    def neuron_target(self) -> _neuron_target:
        """what a neuron does to each token to be predicted. Macro neuron_target(run, neuron_index, fewest := 5)."""

    @property
    def neuron_token(self) -> _neuron_token:
        """the tokens whose logits a neuron moves most (logit lens). One row per run × neuron × direction × rank."""

    @property
    def neuron_top_activation(self) -> _neuron_top_activation:
        """where a neuron is most active, and places along its range, with text. Macro neuron_top_activation(run,
        neuron_index, contexts := 5, around := 40).
        """

    @property
    def neuron_weight(self) -> _neuron_weight:
        """the weight vectors of a run's neurons. One row per run × neuron."""

    @property
    def plateau_difference(self) -> _plateau_difference:
        """the head and power law of rare tokens against those of common tokens. One row per run × preset."""

    @property
    def plateau_match(self) -> _plateau_match:
        """whether the neurons of a run's head have their partners in another run's head. One row per run × other
        run × preset × token_group.
        """

    @property
    def position_context(self) -> _position_context:
        """the pair of rare and common token that each matched position belongs to. One row per run × position; only
        in runs with --contexts nc-matched.
        """

    @property
    def position_frequency(self) -> _position_frequency:
        """how frequent each position's target is in the run's own source. One row per run × position whose target
        has a count and is not a separator.
        """

    @property
    def position_group(self) -> _position_group:
        """which positions each preset calls rare and common. One row per run × preset × position in one of the
        preset's groups.
        """

    @property
    def power_law_at(self) -> _power_law_at:
        """the power law on any window of ranks. Macro power_law_at(run, first, last)."""

    @property
    def power_law_fit(self) -> _power_law_fit:
        """the power law of log influence against log rank, between a head and a tail. One row per run × preset ×
        token_group.
        """

    @property
    def power_law_fit_of(self) -> _power_law_fit_of:
        """the power law of a curve of influence other than power_law_fit's. Macro power_law_fit_of(of_statistic,
        of_role).
        """

    @property
    def preset(self) -> _preset:
        """what rare and common mean. One row per preset."""

    @property
    def published_value(self) -> _published_value:
        """what the papers print, number by number. One row per paper × place × model × group_name × quantity."""

    @property
    def quality_result(self) -> _quality_result:
        """what the checks of each run found, refused runs included. One row per run × suite × relation ×
        expectation.
        """

    @property
    def ranking_overlap(self) -> _ranking_overlap:
        """how far two rankings of a layer's neurons are the same. One row per run × preset × token_group × ranking
        × other run × preset × token_group × ranking.
        """

    @property
    def reference_agreement(self) -> _reference_agreement:
        """whether two references, values that an activation is replaced by, agree. One row per run × other run ×
        preset × token_group.
        """

    @property
    def regime_decision(self) -> _regime_decision:
        """whether a curve of influence has a plateau. One row per run × preset × token_group."""

    @property
    def regime_decision_of(self) -> _regime_decision_of:
        """whether a curve of influence other than regime_decision's has a plateau. Macro
        regime_decision_of(of_statistic, of_role).
        """

    @property
    def regime_fit(self) -> _regime_fit:
        """every window and every model of head and tail fitted to a curve of influence. One row per run × preset ×
        token_group × rank_window, or × head × tail.
        """

    @property
    def run_warning(self) -> _run_warning:
        """what to know about a run's token groups before reading its results. One row per run × kind × preset, of
        published runs that exceed a limit.
        """

    @property
    def spectral_density(self) -> _spectral_density:
        """the spectrum of a group of weight vectors as a histogram in log λ. One row per run × preset × token_group
        × matrix × standardised × group_name × k × bin.
        """

    @property
    def threshold_sensitivity(self) -> _threshold_sensitivity:
        """the curve of influence described on both sides of every threshold. One row per run × preset × token_group
        × percentile.
        """

    @property
    def token_frequency(self) -> _token_frequency:
        """how often each token occurs in a frequency source, and its rank there. One row per tokenizer × frequency
        source × token.
        """

    @property
    def token_group_size(self) -> _token_group_size:
        """how many positions each token group has, or why it has none. One row per run × preset × token_group."""

    @property
    def token_neuron(self) -> _token_neuron:
        """which neurons carry a token. Macro token_neuron(run, token_text)."""

    @property
    def weight_spectrum(self) -> _weight_spectrum:
        """the tail of the eigenvalue spectrum of a group of weight vectors. One row per run × preset × token_group
        × matrix × standardised × group_name × k × draw × rule.
        """
